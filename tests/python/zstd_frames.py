"""Zstandard frames of the reference library, with the SHA-256 (first 16 digits) of their contents.

Made by `zstandard.ZstdCompressor(level=…).compress` 0.25 from random contents: each takes another way through a decoder (Huffman
literals in one and four streams, FSE tables of all modes, repeated offsets, run-length and raw blocks, several blocks).
"""

FRAMES = {
    "skewed": (
        "62fdb103862fc865",
        'D77#BV8jUBDga8HSQV~_hj({oW@S}XL_|X~Ga?}Z5)c6q5D@@O0Z#!@0exMSIq+`PHUbh`V!Q5n1oN^M`aEW8?vP|U66O01PwlNR'
        'fvO{>(Bias`DU#lF2^M!&gg@02FYqjFjBL7DdjER+)X^i$`Fjrd(*r#s8%wsXt^#0!GzMClS!m#8XtHaCeNYYR^RhkwQle`D7e}F'
        '7o(_e>Q-e*WuROovs8omOyBbT{I2Wk3wJYG6y>2++JXf?CFP&K2k1aAU%Q(7XHE#L5H>iR#t6!~Ru_l+;V1_?D|cwgxjX+A-'
        'TjOi)z-'
        'T!6oOWX>*(LfFvI0ReU$~05#rh)st(YR?VKcw(h4MPyAl8xEK&Zp&L*MaK=RKW*Nc&GJs+Y@uhuL<(W)DbR^8rivsK7ANDE#`U{#'
        'N1+liy<Mmo-F)O%W6vz`)UY1*MM#PS1A)_kf3ZjQqjbi-'
        'S5dzI+)`bH575$UFCt=GDyA7*6MgyTBZ@Rd4N#o`KH=5O7neWpxB>mCxLM@oe?B}?lvv`(5n8Z$~^30X4nkDG(>d)Od<$nK>m=5='
        'kxOi_c5{!V#lAFijaD{^D7tjoTRk@XF>G@`53rj4AT+b0^xryAQSL~vA@pa-'
        '5&c|}Hw!S3%aoYN7XssTAkSOF(9fMG;k@0e!KYOUGMv0=^9u%3r4daj6h>&i|=895<Rg&M-4HbB<G-B;NpuePI7A+>Q4U{v7~e-'
        '$^c+C#p}>%`k-'
        '#2(JgC<7w6Z&D;Hf<(Rqbv*pr6uxK{reN8MwFlrR@N0kEQ$L<$kPBw7M8e!dCa1qSCVs@c(DtM%QZAI$QYsrXQLkT>H3r{cfH{zA'
        'jo>mO%QnQ1oqpgm$faHv@>Q%a1-BhpU@yAx+LG_H;M22{=1|W4L6HhoG^Dgfk+Ax0<kjE-<=E)Ne5o$fgqtF7;Q$2X-<(JjiroC-'
        't{Xm6J1yO^Fw}e)1{Z46V%z%n;LG8-'
        '2eP0R2vV;DFtAl7@?OxwCI~aGwfll}5O$7cAZV}9C|d>8S69V0+8qe`pc*>26|~_PT`MW5I2tMSNLcR?f~5{SrUZN{2tA?$s>&?n'
        'Vpui9=1tiegBz@5O<_)LZd#)TEv=m`D{#Q76%e&pL)z;<lq!=`_gK1MNyG#t7Tos^Q<V50CBpqGJzbg4Ss71L#IC>%1)JG|sv^&d'
        '8fRv!*}ucg6&DD}gNG5~I(DCkHj`13S{N$R?7yk)^`cVmmQq%M&k~)wkndppDpjqw4D?hnqAul`!`|WeiePophEi$uG^d)kEJZno'
        'aT&D46x#9%s+OBJgA7y)Y7l(iZx`kEVZ~!MS@@ObocX9j?jAj=Dp5hrTJaB06$hlG#5&d0lW!7op-'
        '8_t^`C~!LeFNs0;VT`)@831zpghO!}PiI^YJp+*`@fd>MsxOsPwdOR%)3{F%+Utrb<m>)EA5Xq*k#TESzuMZi`9ktl}lBvh+5Nlh'
        'jT9{_2`9+&X5R-'
        '_<a_5P7lr5KfdSqr#fr;>!AdrMBvNKXCcTj@#4`R)9~)3qy}qfJe&;k=|u~T7>D`9=EW7%bz*1c*{{W1t?7W?ydttDo8IS-'
        '05n7G&4Bxs(J-cSXJ&2xKl7}6LX>{UMQk(vjV-YZp;b|R9IkmYBVXxjxm=CEOna#*I3nz`W%4U*{EWjf5WrlL@cg<-'
        'Sycofz2Ob_blAYv&Vtba1PwFUS-{oxE3iv1?>Jg)D=~RWP>)))t|M-'
        'XgS2XwCS}CdUuvEdaB$=re{|ySMm)@YDRHXQ>MmL&^K%y00'
    ),
    "words": (
        "9ea6f26651d470f0",
        'D77#BVBZV%DFEaeHM2SPn@*3&hu#Zby)%V!F4(;sailm0xhy(|*@4|R3MpKNqWW?Epy)54IlgvfLIN<W`_F6Z^JvDDt7Sm%itR-'
        '~eFq#mMH9KcuuFt5<SEcx8Y+hRU~Hz{&5*{UMVir}AP2u4+3$)grbYNQ!DgcRcBDyl|2ZV5w*bp@ajNt<fNbaTYDjE<X6xx}rX)h'
        'c_S$0AL2&tiZ0C>sscrbzL=F&8x(ZBPrB}sJDAwWrzy)|cIjxj*@wgwb#o40^QKp*l_Yv&hR4VbCH5t$qYn&xyHf|DyL=k&H*Ud`'
        'QYwiEzx0jFtFocvq0;)jQqWa;}5&_5SVW5f>2f3p9u|6GHtVoduxuW_kIxta;ng>3V3OrxM*$25UJ-Ma62qW_hx_U4Nxhy&YFvZy'
        '{I>p%sxj@$rD%ljL&n!ADIzZPfI->e4I->dlFvZz`Z0GNaFj0)6`Ukl{*DN|f*YAqO+3$)6fNbY1I>p%nFf2O!1}F|gzJmw3EII-'
        '(0x+Wb?}`Vx?}{usqWYrx?}|Xz#o0jD#o0jDqWZ-GFhJME*`oR|QH+87sNn`DA}L5x%CZI_2*O|-'
        ')#!P#EQ(!C(gEVcDOyJ*S9gXnl@~0WgZdL7F9MY>Xh#~d;Psb7#=HNDwkDH*nN8sfEFTWfn5DZI@$Up=6cnP6MmQ5*3=yd^Lr1FK'
        '7o=nWIZ*86L4_ZwtYm!lfv{WLl_ig%J?yr+%So6C?NO8Pi9#Twn&itG81s3Z^o*nYpTe9+8nJPxW-'
        'h2JWjJBR9$IGh{bo&N&t4w(8h{HHIATQ43Gp0gwCcPxbVG1qypo9i@3vRknl(>9^Gv;8o1_;C*)oSgAwtQpaNOJAheVod35R63%O'
        '4nauGi7d`E%ri^ua5DSdtAb&a2QS1YZS>_5@?WFVSrX3^ybIx?=z<Z%7U8H9ePf)f19w-'
        'qygnes~?o0KQyi0uIs|2gu0LJx<OpLA0|*r2G`uj*E<4W)Mb)02s{zp4SyS|FAtCI1W@D)`Ws*xvR~0Mk(8`HW@Q;i#ZQQ1H__Ry'
        '8@>0@$-'
        'm`5;;%wBp~sQ$(e3o4zLe1uSP>L@lr5<`+|$KT!^+UORo|Y()TlD_GWtp>G?{R*En2*)B?SUwe~knfkg)bD_>M7UgjOczx%X?^g7'
        'Kkg#E;tcqIbq&7t^IM5&EZhNoTmQjD1)t$|TFL{E)BZUxK)b7M>0{`W^+(uRR?0`-'
        'L8rl&I$TZ}6CQ`TvSQE>76#u1_6Gm>0avgzZ6>SO#8tvYVC*fB~hd@w7HgwKEMiVK>2g&AZ>T#GBERxBs0<@l*aABqG1@=CBQE=4'
        'D}kPvmyqNgufV<%O<dxbc`nL(oC6Ot%t<#4O}fi@1I1QB@$YZ-bKgUQ~-'
        '@;ks{^oGuM@jKM^IDe5pBdL{0Fc9C`Lim>rq8{OUbEYpCA_)sEwgDk@8l78W?}5VMkSXRK<XPNG)~3Y=Tm4`Zi40Uwm==u8S?1;X'
        'EhYX!!U6a*nCV26QD8NMK_;kUj&o92SO(BQsMR--'
        '$6kw+h0ix`*Bk@A30m9#G+`XlcF*bw#C006&OgS{T6_6{jSuR<Ihp<)a%+&WM^^@X_q`S71SCex#P)+75N_GZ*`8cspSmH7lFLL{'
        'AP;Y*P<biyL8uGHi_#(KEyO4Ztx^>13z_&<9Gm%3Rz{3Q3nvs5oE>OlLqIeJ&BW&KwBTU^9Jwv|zcNPSGu`_g3U*K=7G&m@pIO){'
    ),
    "runs": (
        "9cadef996e52a7f4",
        'D77#BVE8D71OVg$00095009C40ssO50s#U80ssR50{{U60RRI5009C30|5X60RsU50RjU60RSuz06LXY^?VdFQqo<v%3M?-'
        'S1&_l4oYy;0jLZ_6`kIQVh^g^sJD{|D8Wz{ud)P{WU3dXSh^}{>K<i9f}px;mF-l<)SW1{NRxU&iU=!F#ZbLA#YieI>M<xL(l!'
    ),
    "noise": (
        "66abad6a7b844dc6",
        'D77#BU@QP(2>|?^vl8sNW0?>8SXSw}qWd#<8ySd@jS4QT12-'
        '0hMV=zy*~JxG9I+K7xhy)MjL_R9xlOkQl2^Dkffd9<fX|NmSHh&*H+D=^gqL}ZyzA*X%q};K!2&};Mp4BIxbUNZZ|+>$c4>ymUde'
        'U`IB0y-KnNdJiWVS^;>qH(tv<Jt=Oubt*Sp#c>w-'
        'Ku#;x#S$tsjhw<d#QGt6aAC0M~sD#bNe?;}?=C^Yg$y)u<1#_axvIyi(9ps#^pz*IA;X0<1*+4;PZ9}$J6PXBnCx&R21rOIPJb>T'
        '8-&w78Es0r=pP=5rWiiYBteaBM%dQ`Rkc<4WQtPv){U%<Hof10vq>Y|}X2@o4M^fFcY+uhwV3ZS78;tYUuf!O-Jm|gI@U&&8*PH6'
    ),
    "blocks": (
        "294cd274620d1321",
        'D77#Bppei507L=+$YEk(VPaxpVPauoVqs!oVPRomVPRonVqy{iasOw?K=VMs81?~33^2n0o&$)=Ky!fA0Zzz3bKIAKfy%>Y#y}Z<'
        'Az=VVbpQYmVE_UEoQAku*pnSx0R'
    ),
}
